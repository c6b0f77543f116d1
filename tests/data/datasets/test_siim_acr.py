FILES = {
    "dicom-images-train/1.2.276/1.2.277/1.2.3.4.1.png": None,
    "dicom-images-train/1.2.278/1.2.279/1.2.3.4.2.png": None,
    "dicom-images-train/1.2.280/1.2.281/1.2.3.4.3.png": None,
    "train-rle.csv": (
        "ImageId, EncodedPixels\n1.2.3.4.1, -1\n1.2.3.4.2,175349 7 1013 12\n1.2.3.4.2, 209126 1\n"
        "1.2.3.4.3,\n"
    ),
}


def test_masks_become_one_label(indexed):
    index, excluded, _ = indexed(FILES, patient_from="image")
    assert index.index.tolist() == ["1.2.3.4.1.png", "1.2.3.4.2.png"]
    assert index["Pneumothorax"].tolist() == [0, 1]
    assert index["any_abnormal"].fillna(-1).tolist() == [-1, 1]
    assert excluded[["image", "reason"]].to_numpy().tolist() == [["1.2.3.4.3.png", "empty_labels"]]
