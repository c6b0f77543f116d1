"""What the tables of a data set mean: which images, whose, with which labels."""
