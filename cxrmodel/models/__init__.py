"""The networks: a variational autoencoder without skip connections and a classifier."""
