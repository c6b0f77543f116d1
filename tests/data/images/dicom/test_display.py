"""What DICOM images look like in 8 bits, against numbers worked out by hand."""

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.data.images.dicom.display import decode_dicom
from tests.data.images.image_bytes import dicom, encode, lut, noise


def shown(values, dtype=np.uint16, **options):
    """Return the grey of an image of one row of stored values."""
    return decode_dicom(dicom(np.array([values], dtype), **options), 64)[0].tolist()


class TestPlain:
    def test_eight_bits_without_a_window_stay_as_they_are(self):
        assert shown([10, 200, 255], np.uint8) == [10, 200, 255]

    def test_monochrome1_is_inverted(self):
        kind = {"PhotometricInterpretation": "MONOCHROME1"}
        assert shown([0, 10, 255], np.uint8, **kind) == [255, 245, 0]
        # Windowed first: 85 of 255, then inverted.
        window = {"WindowCenter": 2048, "WindowWidth": 4096}
        assert shown([1365], bits=12, **window, **kind) == [170]

    def test_more_bits_are_spread_from_the_least_to_the_greatest(self):
        assert shown([1000, 2000, 5000], bits=14) == [0, 64, 255]  # 1000 / 4000 * 255 = 63.75

    def test_signed(self):
        assert shown([-1000, 1000, 3000], np.int16) == [0, 128, 255]  # 127.5, to even

    def test_twelve_signed_bits_without_their_sign_repeated_above(self):
        stored = [0x800, 0xFFF, 0x7FF]  # -2048, -1, 2047
        assert shown(stored, bits=12, PixelRepresentation=1) == [0, 127, 255]  # 2047 / 4095 * 255

    def test_overlays_above_the_stored_bits_do_not_count(self):
        positions = [((0x6000 + 2 * number, 0x0102), "US", 12 + number) for number in range(4)]
        stored = [0xF000, 0x1800, 0xFFF]
        assert shown(stored, bits=12, elements=positions) == [0, 128, 255]  # 2048 / 4095 * 255

    def test_a_blank_image_is_black(self):
        assert shown([700, 700]) == [0, 0]

    def test_one_bit(self):
        image = dicom(np.zeros((1, 8), np.uint8), bits=1, data=b"\x05\0", BitsAllocated=1)
        assert decode_dicom(image, 64)[0].tolist() == [255, 0, 255, 0, 0, 0, 0, 0]


class TestWindow:
    def test_linear(self):
        # PS3.3 C.11.2.1.2: ((x - 99.5) / 50 + 0.5) * 255, so 63.75 and 191.25 in between.
        window = {"WindowCenter": 100, "WindowWidth": 51}
        assert shown([0, 74, 87, 112, 125, 4095], bits=12, **window) == [0, 0, 64, 191, 255, 255]

    def test_linear_exact(self):
        window = {"WindowCenter": 128, "WindowWidth": 256, "VOILUTFunction": "LINEAR_EXACT"}
        assert shown([0, 64, 256], bits=12, **window) == [0, 64, 255]  # 64 / 256 * 255 = 63.75

    def test_sigmoid(self):
        window = {"WindowCenter": 100, "WindowWidth": 40, "VOILUTFunction": "SIGMOID"}
        assert shown([100, 110], bits=12, **window) == [128, 186]  # 255 / (1 + 1 / e) = 186.4

    def test_the_first_of_several(self):
        windows = {"WindowCenter": [100, 9], "WindowWidth": [51, 9]}
        assert shown([87, 112], bits=12, **windows) == [64, 191]

    def test_eight_bits_are_windowed_too(self):
        assert shown([87, 112], np.uint8, WindowCenter=100, WindowWidth=51) == [64, 191]

    def test_an_empty_window_is_none(self):
        assert shown([10, 20], np.uint8, WindowCenter="", WindowWidth="") == [10, 20]


class TestModality:
    def test_rescale_comes_before_the_window(self):
        tags = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 0, "WindowWidth": 201}
        # -100, 0 and 100 in a window of -100.5 to 99.5: 0.6375, 128.1, beyond.
        assert shown([0, 50, 100], bits=12, **tags) == [1, 128, 255]

    def test_a_negative_slope_inverts(self):
        rescale = {"RescaleSlope": -1, "RescaleIntercept": 255}
        assert shown([0, 55, 255], np.uint8, **rescale) == [255, 200, 0]
        window = {"WindowCenter": 128, "WindowWidth": 256}
        assert shown([0, 55, 255], np.uint8, **rescale, **window) == [255, 200, 0]

    def test_modality_lut(self):
        sequence = [lut(0, 8, [50, 100, 200])]
        assert shown([0, 1, 2], bits=12, ModalityLUTSequence=sequence) == [0, 85, 255]


class TestVOILUT:
    def test_eight_bit_entries_of_more_than_256_inputs(self):
        sequence = [lut(100, 8, [i * 255 // 299 for i in range(300)])]
        stored = [0, 100, 250, 399, 4095]
        assert shown(stored, bits=12, VOILUTSequence=sequence) == [0, 0, 127, 255, 255]

    def test_eight_bit_entries_of_a_byte_each(self):
        packed = lut(0, 8, [0])
        packed.LUTDescriptor = [1000, 0, 8]
        packed.add_new("LUTData", "OW", bytes(number // 4 for number in reversed(range(1000))))
        assert shown([0, 400, 999], bits=12, VOILUTSequence=[packed]) == [249, 149, 0]

    def test_entries_of_more_bits(self):
        sequence = [lut(0, 12, [0, 2048, 4095, 1024])]
        stored = [0, 1, 2, 3, 4]
        assert shown(stored, bits=12, VOILUTSequence=sequence) == [0, 128, 255, 64, 64]

    def test_it_goes_before_a_window_and_the_first_before_others(self):
        sequence = [lut(0, 8, [9, 8, 7]), lut(0, 8, [1, 2, 3])]
        tags = {"VOILUTSequence": sequence, "WindowCenter": 1, "WindowWidth": 2}
        assert shown([0, 1, 2], **tags) == [9, 8, 7]

    def test_it_follows_the_rescale(self):
        rescale = {"RescaleSlope": "0.5", "RescaleIntercept": "-1"}
        sequence = [lut(0, 8, [10, 20, 30])]
        assert shown([0, 2, 4, 6], **rescale, VOILUTSequence=sequence) == [10, 10, 20, 30]


class TestColour:
    def test_rgb_becomes_luminance(self):
        red = np.zeros((1, 1, 3), np.uint8)
        red[..., 0] = 255
        assert decode_dicom(dicom(red), 64).tolist() == [[76]]
        deep = red.astype(np.uint16) << 8
        assert decode_dicom(dicom(deep), 64).tolist() == [[76]]

    def test_ybr_is_converted(self):
        grey = np.array([[[100, 128, 128]]], np.uint8)
        image = dicom(grey, PhotometricInterpretation="YBR_FULL")
        assert decode_dicom(image, 64).tolist() == [[100]]

    def test_palette(self):
        palette = {"PhotometricInterpretation": "PALETTE COLOR"}
        for hue in ("Red", "Green", "Blue"):
            palette[f"{hue}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
            palette[f"{hue}PaletteColorLookupTableData"] = np.array(
                [0, 10 << 8, 20 << 8, 255 << 8], np.uint16
            ).tobytes()
        assert shown([0, 1, 2, 3], np.uint8, **palette) == [0, 10, 20, 255]


class TestEncoding:
    def test_implicit(self):
        window = {"WindowCenter": 100, "WindowWidth": 51, "syntax": ImplicitVRLittleEndian}
        assert shown([87, 112], bits=12, **window) == [64, 191]
        sequence = [lut(0, 12, [0, 2048, 4095])]
        tags = {"VOILUTSequence": sequence, "syntax": ImplicitVRLittleEndian}
        assert shown([0, 1, 2], bits=12, **tags) == [0, 128, 255]

    def test_rle(self):
        pixels = noise(9, 7).astype(np.uint16) * 16
        frame = RLELosslessEncoder.encode(
            pixels,
            rows=9,
            columns=7,
            samples_per_pixel=1,
            bits_allocated=16,
            bits_stored=16,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
            number_of_frames=1,
        )
        image = dicom(pixels, data=encapsulate([frame]), syntax=RLELossless)
        np.testing.assert_array_equal(decode_dicom(image, 64), decode_dicom(dicom(pixels), 64))

    def test_jpeg_in_dicom(self):
        blocks = noise(8, 9).repeat(8, axis=0).repeat(8, axis=1)  # of one grey: exact in JPEG
        frame = encapsulate([encode(blocks, "JPEG", quality=100)])
        image = dicom(blocks, data=frame, syntax=JPEGBaseline8Bit)
        np.testing.assert_array_equal(decode_dicom(image, 64), blocks)


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
def test_an_image_becomes_a_square_as_a_png_does(fit):
    config, pixels = ImagesConfig(size=64, fit=fit), noise(90, 70)
    image, png = decode_image(dicom(pixels), config), decode_image(encode(pixels), config)
    np.testing.assert_array_equal(image.pixels, png.pixels)
    assert (image.width, image.height) == (70, 90)
