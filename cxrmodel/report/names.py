"""What people call the models and scores that the numbers name by a key."""

MODELS = {  # in the order in which they are listed, the hardest to beat first
    "classifier": "Classifier on latents",
    "pca_network": "PCA + the same network",
    "pca_logistic": "PCA + logistic regression",
    "metadata": "Age, sex and view, no pixel",
    "patient_memory": "Memory of the patient's other labels",
    "prevalence": "Prevalence in train",
    "all_positive": "Everything called positive",
}
ANOMALIES = {
    "reconstruction_error": "reconstruction error",
    "kl": "KL to the prior",
    "mahalanobis": "Mahalanobis distance from train latents with no listed finding",
}
