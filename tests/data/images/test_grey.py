"""How values are spread over grey levels, and when an image shows nothing."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.data.images.grey import (
    METHOD,
    check_contrast,
    count_codes,
    scaled,
    shows,
    spread,
    spread_most,
    used_levels,
)
from cxrmodel.errors import ImageError
from tests.data.images.image_bytes import dicom, encode

CODES = np.arange(2**16, dtype=np.float64)


@given(arrays(st.sampled_from([np.uint8, np.uint16]), (7, 9)))
def test_every_pixel_is_counted_once(codes):
    counts = count_codes(codes)
    values, expected = np.unique(codes, return_counts=True)
    assert counts.sum() == 63
    assert counts[values].tolist() == expected.tolist()


def test_blocks_of_many_pixels_are_added_up():
    codes = np.resize(np.arange(5, dtype=np.uint8), (1500, 2001))
    assert count_codes(codes)[:6].tolist() == [600_300] * 5 + [0]


class TestSpread:
    def test_from_the_least_to_the_greatest(self):
        grey = spread(CODES, count_codes(np.array([1000, 2000, 5000], np.uint16)))
        assert grey[[0, 1000, 2000, 5000, 9000]].tolist() == [0, 0, 64, 255, 255]

    def test_of_one_value_is_black(self):
        assert spread(CODES, count_codes(np.full(9, 700, np.uint16)))[700] == 0

    def test_far_values_are_left_out_where_they_cost_the_rest_its_levels(self):
        codes = np.r_[np.arange(1000, 1200), np.full(500, 65_535)].astype(np.uint16)
        grey = spread(CODES, count_codes(codes))
        # 201 values, of which 3 at each end are left out: from 1003 to 1197.
        assert grey[[1003, 1100, 1197, 65_535]].tolist() == [0, 128, 255, 255]

    def test_few_values_far_apart_stay(self):
        grey = spread(CODES, count_codes(np.array([0, 1, 65_535], np.uint16)))
        assert grey[[0, 1, 65_535]].tolist() == [0, 0, 255]

    def test_no_finite_range(self):
        values = np.array([0, np.inf])
        assert scaled(values, 0, np.inf) is None
        with pytest.raises(ValueError, match="no finite range"):
            spread(values, np.array([1, 1]))


class TestSpreadMost:
    """10,000 pixels: ten of them are the 0.1 % that may be left out at an end."""

    BODY = np.resize(np.arange(1000, 3000), 10_000)

    def grey_of(self, *far):
        codes = self.BODY.copy()
        codes[: len(far)] = far
        return spread_most(CODES, count_codes(codes.astype(np.uint16)))

    def test_the_ends_are_percentiles_of_the_pixels(self):
        # Each value has five pixels: the tenth from below has 1001, the tenth from above 2997.
        grey = self.grey_of()
        assert grey[[1000, 1001, 1999, 2997, 2999]].tolist() == [0, 0, 128, 255, 255]

    @pytest.mark.parametrize("hot", [4000, 10_000, 65_535])
    def test_hot_and_dead_pixels_change_hardly_anything(self, hot):
        difference = self.grey_of(hot, hot, 0)[1000:3000].astype(int) - self.grey_of()[1000:3000]
        assert np.abs(difference).max() <= 1

    def test_pixels_that_are_more_than_a_few_stay_within_the_range(self):
        assert self.grey_of(*[5000] * 20)[[2999, 5000]].tolist() == [127, 255]

    def test_what_shows_in_few_pixels_only_is_not_lost(self):
        codes = np.full(10_000, 700)
        codes[:8] = np.arange(0, 1600, 200)
        grey = spread_most(CODES, count_codes(codes.astype(np.uint16)))
        assert grey[[0, 700, 1400]].tolist() == [0, 128, 255]

    def test_of_one_value_is_black(self):
        assert spread_most(CODES, count_codes(np.full(9, 700, np.uint16)))[700] == 0


class TestShows:
    def test_a_table_with_too_few_levels_for_its_codes(self):
        counts = np.ones(64, np.int64)
        assert not shows((np.arange(64) // 2 + 9).astype(np.uint8)[:62], counts[:62])
        assert shows((np.arange(64) // 2 + 9).astype(np.uint8), counts)

    def test_nearly_all_black_or_white(self):
        table = np.arange(256).astype(np.uint8)
        counts = np.ones(256, np.int64)
        counts[0] = 98 * 127
        counts[255] = 98 * 127
        wide = np.repeat(table, 2)
        assert shows(table, counts)  # each code has its own level: nothing is lost
        assert not shows(wide, np.repeat(counts, 2) * 3)

    def test_codes_that_do_not_occur_do_not_count(self):
        counts = np.zeros(256, np.int64)
        counts[[3, 5]] = 1
        assert shows(np.repeat(np.uint8([0, 255]), [4, 252]), counts)


@pytest.mark.parametrize(
    ("counts", "levels"),
    [({7: 100}, 1), ({7: 99, 200: 1}, 1), ({7: 98, 200: 2}, 194), ({7: 50, 22: 50}, 16)],
)
def test_levels_that_nearly_all_pixels_lie_within(counts, levels):
    by_level = np.zeros(256, np.int64)
    by_level[list(counts)] = list(counts.values())
    assert used_levels(by_level) == levels


def test_sixteen_levels_are_too_few():
    check_contrast(17)
    with pytest.raises(ImageError, match="low_contrast: 98 % of its pixels lie within 16 of 256"):
        check_contrast(16)


LEVELS_OF_METHOD = {
    "grey-1": {
        "png": 613542008,
        "deep png": 927355688,
        "colour png": 3224379273,
        "jpeg": 2094354909,
        "dicom": 1687933037,
        "deep dicom": 1519335698,
    }
}
"""CRC-32 of the pixels of each file, by method."""


@pytest.mark.parametrize("kind", ["png", "deep png", "colour png", "jpeg", "dicom", "deep dicom"])
def test_grey_levels_are_those_that_the_name_of_the_method_stands_for(kind):
    """Where this fails, give `METHOD` a new number, and put the new levels here."""
    ramp = np.add.outer(np.arange(64), np.arange(64))
    deep = (ramp.astype(np.uint16) ** 2) // 4
    colour = np.stack([ramp, 2 * ramp, ramp // 2], axis=-1).astype(np.uint8)
    files = {
        "png": encode(ramp.astype(np.uint8)),
        "deep png": encode(deep),
        "colour png": encode(colour),
        "jpeg": encode(np.full((64, 64), 90, np.uint8), "JPEG"),
        "dicom": dicom(ramp.astype(np.uint8), WindowCenter=60, WindowWidth=80),
        "deep dicom": dicom(deep, bits=12, PhotometricInterpretation="MONOCHROME1"),
    }
    pixels = decode_image(files[kind], ImagesConfig(size=64)).pixels
    assert zlib.crc32(pixels) == LEVELS_OF_METHOD[METHOD][kind]
