"""Names of the files through which stages hand over tables, and the one status of a good image."""

ENTRIES_FILE = "entries.csv"
TRAIN_VAL_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"

INDEX_FILE = "index.parquet"
LISTING_FILE = "listing.parquet"
IMAGES_FILE = "images.parquet"
SPLIT_FILE = "split.parquet"

OK = "ok"
