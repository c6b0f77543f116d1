"""A trained model in use: the bundle, the predictor, operating points."""
