"""Forms of logs that tools and people make: read, or refused with what helps."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable

import pytest

from schedhook.values.errors import UsageError
from tests.unit.migration.profiling.test_reading import PAGE, read

ONCE = {7: [(PAGE, 1, 1)]}
CSV = f"pid,cpu,address\n7,1,{PAGE:#x}\n".encode()
FAULT = "python3   7 [001] 67853.841337:          1 page-faults:     7f0925122e64 "
LARGE = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
"""What makes a small file of xz need a GiB of memory."""


def gzipped(data: bytes) -> bytes:
    """Compress without the time, which would be in the tests' names: workers must agree on them."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    "rest",
    [
        "[unknown] (/usr/bin/env) ffffffff817554ea elf_load+0x28a ([kernel.kallsyms])",
        "_start+0x0 (/lib/ld-linux.so.2)     7f42a744db70 _start+0x0 (/lib/ld-linux.so.2)",
        "[unknown] ([stack]) ffffffff81b75d98 _copy_to_user+0x28 ([kernel.kallsyms])",
        "std::f<a, b>(int)+0x5b (/x (deleted))     7f42a744db70 [unknown] (/x (deleted))",
        "",
    ],
)
def test_page_faults_with_the_default_fields_and_the_address(rest: str) -> None:
    """`perf script -F +addr` of perf 6.1, which prints symbol and file of the address, too."""
    found, tally = read(f"{FAULT}{rest}\n")
    assert (found, tally.bad_lines) == (ONCE, 0)


@pytest.mark.parametrize(
    "log",
    [
        codecs.BOM_UTF8 + CSV,
        CSV.replace(b",", b";"),
        CSV.replace(b",", b"\t"),
        CSV.replace(b",", b"|"),
        CSV.replace(b"\n", b"\r\n"),
        b"PID,Cpu,ADDRESS" + CSV[15:],
        b'"pid";"cpu";"address"\n"7";"1";"' + hex(PAGE).encode() + b'"\n',
        f"pid,cpu,address\n7,1,{PAGE:x}\n".encode(),
        f"pid,cpu,address\n7,1,{PAGE:X}\n".encode(),
        f"pid,cpu,address\n7,1,0X{PAGE:X}\n".encode(),
        f'{{"PID": 7, "Cpu": 1, "ADDR": "{PAGE:x}"}}\n'.encode(),
        codecs.BOM_UTF8 + f'{{"pid": 7, "cpu": 1, "addr": {PAGE}}}\n'.encode(),
        codecs.BOM_UTF8 + f"{FAULT}\n".encode(),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_what_is_read(log: bytes, pack: Callable[[bytes], bytes]) -> None:
    found, tally = read(pack(log))
    assert (found, tally.bad_lines) == (ONCE, 0)


def test_files_of_xz_in_several_parts_are_read_to_their_end() -> None:
    head, _, rows = CSV.partition(b"\n")
    parts = lzma.compress(head + b"\n") + lzma.compress(b"") + bytes(8) + lzma.compress(rows)
    assert read(parts)[0] == ONCE
    many = b"".join(lzma.compress(b"#" * 100_000 + b"\n") for _ in range(3))
    assert read(many + lzma.compress(CSV))[0] == ONCE


def test_hexadecimal_addresses_of_digits_only_are_so_if_another_one_has_a_letter() -> None:
    digits = 0x7F0925122000 & ~0xF0000000000 | 0x10000000000
    assert f"{digits:x}".isdigit()
    csv = f"pid,cpu,address\n7,1,{digits:x}\n7,1,{PAGE:x}\n7,10,{PAGE:#x}\n"
    lines = f'{{"pid":7,"cpu":1,"addr":"{digits:x}"}}\n{{"pid":7,"cpu":1,"addr":"{PAGE:x}"}}\n'
    for log in (csv, lines):
        assert read(log)[0] == {7: [(digits, 1, 1), (PAGE, 1, 1)]}
    decimal = f"pid,cpu,address\n7,1,{PAGE}\n7,1,{PAGE:#x}\n"
    assert read(decimal)[0] == {7: [(PAGE, 1, 2)]}


@pytest.mark.parametrize(
    ("log", "hint"),
    [
        (f"7,1,{PAGE:#x}\n", "must name its fields, such as pid,cpu,address"),
        (f"7;1;{PAGE}\n", "must name its fields, such as pid,cpu,address"),
        (f"pid,address\n7,{PAGE}\n", "no field for the processor or node"),
        (f"cpu\taddress\n7\t{PAGE}\n", "no field for the process:"),
        (f'[\n{{"pid": 7, "cpu": 1, "addr": {PAGE}}}]', "jq -c '.[]'"),
        (f'[{{"pid": 7, "cpu": 1, "addr": {PAGE}}}]', "jq -c '.[]'"),
        (f"app  7 67853.841337:   1 page-faults:     {PAGE:x}\n", "--sample-cpu"),
        (f"app  7/7 67853.841337:   1 page-faults:     {PAGE:x}\n", "--sample-cpu"),
        (f"{FAULT[:-14]} 7f42a744db70 _start+0x0 (/lib/ld.so)\n", "perf script -F comm,pid"),
        (b"PERFILE2h\0\0\0\0\0\0\0", "perf script -i"),
        (CSV.decode().encode("utf-16"), "iconv -f UTF-16"),
        (b"\x28\xb5\x2f\xfd\4\0", "zstd -dc"),
        (gzipped(b"PERFILE2h\0\0\0\0\0"), "perf script -i"),
        (gzipped(CSV)[:-9], "the compressed log is damaged"),
        (gzipped(CSV)[:-8] + b"12345678", "the compressed log is damaged"),
        (bz2.compress(CSV)[:12] + b"12345678", "the compressed log is damaged"),
        (lzma.compress(CSV)[:-9], "the compressed log is damaged"),
        (lzma.compress(CSV, filters=LARGE), "xz -dc"),
        (b"PK\3\4", "unzip -p"),
    ],
)
def test_what_is_refused_says_what_helps(log: str | bytes, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        read(log)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)
