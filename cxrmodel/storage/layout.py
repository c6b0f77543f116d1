"""Names of the files through which stages hand over tables, and the one status of a good image."""

ENTRIES_FILE = "entries.csv"
TRAIN_VAL_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"
BOX_LIST = "BBox_List_2017.csv"

BOX_GRID_PX = 1024
"""Boxes are in pixels of NIH's own PNGs, so many a side, whatever the size of a copy."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, ".dcm")

INDEX_FILE = "index.parquet"
LISTING_FILE = "listing.parquet"
BOXES_FILE = "boxes.parquet"
NOTES_FILE = "notes.json"
IMAGES_FILE = "images.parquet"
SPLIT_FILE = "split.parquet"

OK = "ok"
