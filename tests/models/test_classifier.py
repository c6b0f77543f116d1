import torch

from cxrmodel.models.classifier import Classifier


def test_the_notebooks_network():
    classifier = Classifier(latent_dim=64, num_labels=14)
    sizes = [tuple(layer.weight.shape) for layer in classifier.layers if hasattr(layer, "weight")]
    assert sizes == [(256, 64), (256, 256), (14, 256)]
    assert classifier(torch.zeros(3, 64)).shape == (3, 14)


def test_standardisation_by_hand():
    classifier = Classifier(latent_dim=2, num_labels=1)
    classifier.standardize_as(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert classifier.mean.tolist() == [2, 5]
    assert classifier.scale.tolist() == [1, 1]  # the second dimension does not vary
    classifier.standardize_as(torch.tensor([[0.0, 5.0], [6.0, 1.0]]))
    assert classifier.scale.tolist() == [3, 2]


def test_logits_are_of_standardised_latents():
    classifier = Classifier(latent_dim=2, num_labels=3)
    latents = torch.tensor([[1.0, -7.0], [5.0, 3.0]])
    before = classifier(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    classifier.standardize_as(latents)
    torch.testing.assert_close(classifier(latents), before)


def test_logits_are_scaled_by_hand():
    classifier = Classifier(latent_dim=2, num_labels=2)
    latents = torch.tensor([[1.0, -7.0], [5.0, 3.0]])
    before = classifier(latents)
    slope, intercept = torch.tensor([3.0, 0.5]), torch.tensor([-1.0, 2.0])
    classifier.scale_logits(slope, intercept)
    torch.testing.assert_close(classifier(latents), slope * before + intercept)
