"""Where a data set lies: a folder on a disk, a prefix of S3, any URL that fsspec knows."""
