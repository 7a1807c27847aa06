"""The vector microkernels against numpy, in every form, at every kind of remainder."""

import importlib.util
import os
import subprocess
import sys

import llvmlite.binding
import numpy as np
import pytest
from numba import njit

from ensync.core.errors import EnsyncError
from ensync.kernels.simd import host, intrinsics, tiles
from ensync.kernels.simd.vectors import copied


def compiled(rows, vectors, form):
    kernel, pointer = tiles.tile(rows, vectors, form), intrinsics.pointer

    @njit(error_model="numpy")
    def run(a, b, c, bias, strides, counts, flags, floor):
        outer, inner, row_count, group, skipped, column_count = counts
        a_outer, a_row, a_group, a_inner, b_outer, b_inner, c_row = strides
        geometry = tiles.TileGeometry(
            outer,
            inner,
            a_outer,
            a_row,
            a_group,
            a_inner,
            b_outer,
            b_inner,
            c_row,
            row_count,
            group,
            skipped,
            column_count,
            flags[0],
            flags[1],
        )
        kernel(pointer(a, 0), pointer(b, 0), pointer(c, 0), pointer(bias, 0), geometry, floor)

    return run


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "form, rows, vectors", [("avx512", 8, 3), ("avx2", 4, 3), ("neon", 8, 1), ("plain", 4, 2)]
)
def test_every_form_and_remainder(form, rows, vectors, dtype):
    run = compiled(rows, vectors, form)
    lanes = host.lanes_of(np.dtype(dtype).itemsize, form)
    random = np.random.default_rng(1)
    for row_count in (1, rows, 2 * rows + 1):
        for columns in (1, lanes - 1, lanes, lanes * vectors - 1, lanes * vectors):
            for has_bias, accumulate, floor in (
                (0, 0, -np.inf),
                (1, 0, 0.0),
                (0, 1, -np.inf),
                (1, 1, 0.0),
            ):
                a = random.standard_normal((2, row_count, 5)).astype(dtype)
                b = random.standard_normal((2, 5, columns)).astype(dtype)
                c = random.standard_normal((row_count + 1, columns + 3)).astype(dtype)
                bias = random.standard_normal(columns).astype(dtype)
                expected = c.copy()
                part = (
                    np.einsum("opi,oij->pj", a, b)
                    + has_bias * bias
                    + accumulate * c[:row_count, :columns]
                )
                expected[:row_count, :columns] = np.maximum(part, floor)
                run(
                    a,
                    b,
                    c,
                    bias,
                    (row_count * 5, 5, 0, 1, 5 * columns, columns, columns + 3),
                    (2, 5, row_count, row_count, 0, columns),
                    (has_bias, accumulate),
                    dtype(floor),
                )
                np.testing.assert_allclose(
                    c, expected, rtol=0, atol=2e-5 if dtype == np.float32 else 1e-13
                )


def test_rows_in_groups_and_transposed_a():
    run = compiled(8, 1, host.SIMD)
    random = np.random.default_rng(2)
    image = random.standard_normal((4, 6, 5)).astype(
        np.float32
    )  # lines, pixels, channels; rows are 3 pixels of each line
    b, c = random.standard_normal((5, 4)).astype(np.float32), np.zeros((8, 4), np.float32)
    pixels, strides = image[:, :3].reshape(12, 5), (0, 5, 30, 1, 0, 4, 4)
    for skipped in range(3):
        at = image[0, skipped:]
        run(at, b, c, c, strides, (1, 5, 8, 3, skipped, 4), (0, 0), np.float32(-np.inf))
        np.testing.assert_allclose(c, (pixels @ b)[skipped:][:8], rtol=1e-5, atol=1e-5)
    transposed = random.standard_normal((5, 8)).astype(np.float32)
    run(transposed, b, c, c, (0, 1, 0, 8, 0, 4, 4), (1, 5, 8, 8, 0, 4), (0, 0), np.float32(-np.inf))
    np.testing.assert_allclose(c, transposed.T @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.float64])
def test_a_copy_writes_no_more_than_its_elements(kind):
    @njit(error_model="numpy")
    def run(source, target, count):
        return copied(intrinsics.pointer(source, 0), intrinsics.pointer(target, 0), count)

    source, target = np.arange(1, 21).astype(kind), np.zeros(20, kind)
    assert run(source, target, 7)
    assert np.array_equal(target[:7], source[:7]) and not target[7:].any()
    other = np.zeros(20, np.float64 if kind != np.float64 else np.float32)
    assert not run(source, other, 7) and not other.any()


def test_nan_survives_the_floor():
    run = compiled(8, 1, host.SIMD)
    a, b, c = (
        np.array([[np.nan], [1]], np.float32),
        np.full((1, 2), -1, np.float32),
        np.zeros((2, 2), np.float32),
    )
    run(a, b, c, c, (0, 1, 0, 1, 0, 2, 2), (1, 1, 2, 2, 0, 2), (0, 0), np.float32(0))
    assert np.isnan(c[0]).all() and (c[1] == 0).all()


def test_matrix_tiles_are_asked_for_where_the_processor_has_them_alone(monkeypatch):
    asked, answer = [], [0]

    class Library:
        def syscall(self, *arguments):
            asked.append(arguments)
            return answer[0]

    monkeypatch.setattr(host.ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(host.sys, "platform", "linux")
    both = {"amx-tile": True, "amx-bf16": True}
    for features in ({}, {"amx-tile": True}, both | {"amx-bf16": False}):
        assert not host.tiles_granted(features) and not asked
    assert host.tiles_granted(both) and asked == [(158, 0x1023, 18)]
    answer[0] = -1  # of a system before Linux 5.16
    assert not host.tiles_granted(both)
    monkeypatch.setattr(host.sys, "platform", "darwin")
    assert not host.tiles_granted(both) and len(asked) == 2


def test_a_forced_form_of_vectors_is_without_matrix_tiles():
    program = "from ensync.kernels.simd import host; print(host.AMX, host.description())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"ENSYNC_SIMD": "avx512"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False avx512 vectors\n"


def test_the_form_can_be_forced_and_a_wrong_one_is_refused():
    assert host.choose("plain") == "plain"
    assert host.choose(None) == host.choose("") == host.detect()
    with pytest.raises(EnsyncError, match="ENSYNC_SIMD=sse9"):
        host.choose("sse9")


@pytest.mark.parametrize(
    "triple, features, form",
    [
        ("aarch64-unknown-linux-gnu", {"neon": True}, "neon"),
        ("arm64-apple-darwin23.1.0", {}, "neon"),
        ("x86_64-unknown-linux-gnu", {"sse2": True, "avx": True}, "plain"),
        ("riscv64-unknown-linux-gnu", {}, "plain"),
        ("x86_64-unknown-linux-gnu", {"avx2": True, "fma": True}, "avx2"),
    ],
)
def test_the_form_of_each_host_is_found_at_its_first_import(triple, features, form, monkeypatch):
    monkeypatch.delenv("ENSYNC_SIMD", raising=False)
    monkeypatch.setattr(llvmlite.binding, "get_process_triple", lambda: triple)
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: features)
    spec = importlib.util.spec_from_file_location("host_of_another", host.__file__)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    assert form == other.SIMD and other.bf16_missing()
