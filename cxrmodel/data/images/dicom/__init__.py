"""DICOM files: their tags, and their pixels as 8-bit grey."""
