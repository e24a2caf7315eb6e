"""Files that include each other become one text."""

from chainbench_agent.loading.includes import includes, joined

FILES = {
    "a.c": '// a\n\n#include "b.h" // why\n#include "c.h"\n\nint a;\n',
    "b.h": '// b\n\n#pragma once\n\n#include "c.h"\n\nint b;\n',
    "c.h": "// c\n\n#pragma once\n\n#include <kernel.h>\n\nint c;\n",
}


def test_each_file_comes_once_after_those_that_it_includes():
    """Under its name; what includes files, and `#pragma once`, is gone."""
    assert joined("a.c", FILES.__getitem__) == (
        "// ==== c.h\n// c\n\n#include <kernel.h>\n\nint c;\n\n"
        "// ==== b.h\n// b\n\nint b;\n\n"
        "// ==== a.c\n// a\n\nint a;\n"
    )


def test_files_that_include_each_other():
    """The second of the two comes first, as with `#pragma once`."""
    files = {"a.h": '#include "b.h"\nint a;\n', "b.h": '#include "a.h"\nint b;\n'}

    assert joined("a.h", files.__getitem__) == "// ==== b.h\nint b;\n\n// ==== a.h\nint a;\n"


def test_includes_of_the_kernel_are_not_ours():
    assert includes(FILES["c.h"]) == ()
    assert includes(FILES["a.c"]) == ("b.h", "c.h")
