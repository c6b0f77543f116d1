"""DICOM files: their tags for the index, their pixels as 8-bit grey."""
