"""The text of headers that BTF does not give."""

import pytest

from chainbench_agent.headers.fixed_headers import fixed_files, macros, page_h, version_h


@pytest.mark.parametrize(
    ("release", "code"),
    [
        ("5.10.0-46-amd64", 5 << 16 | 10 << 8),
        ("6.1.180", 6 << 16 | 1 << 8 | 180),
        ("6.12.300+deb13-arm64", 6 << 16 | 12 << 8),
        ("4.19.320", 4 << 16 | 19 << 8 | 255),
        ("7.2", 7 << 16 | 2 << 8),
    ],
)
def test_the_version_is_that_of_the_release(release, code):
    """The kernel has 8 bits for its last number, and cuts a larger one to 255."""
    assert f"#define LINUX_VERSION_CODE {code}\n" in version_h(release)


@pytest.mark.parametrize(("size", "shift"), [(4096, 12), (65536, 16)])
def test_the_page_size_is_given_as_a_shift(size, shift):
    assert page_h(size).startswith(f"#define PAGE_SHIFT {shift}\n")


def test_a_macro_does_not_hide_an_enumerator_of_the_kernel():
    text = macros({"TCP_ESTABLISHED", "PF_KTHREAD", "BPF_MAP_TYPE_HASH"})

    assert "#define PF_KTHREAD " not in text
    assert "#define BPF_MAP_TYPE_HASH " not in text
    assert "#define AF_INET 2\n" in text


def test_a_file_is_either_empty_or_has_its_text():
    files = fixed_files()

    assert files["linux/sched.h"] == ""
    assert "#include <vmlinux.h>\n" in files["linux/kconfig.h"]
    assert "#include <net/sock.h>\n" in files["net/inet_sock.h"]
