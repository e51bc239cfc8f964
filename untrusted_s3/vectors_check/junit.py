"""Results as a JUnit report for CI systems."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from untrusted_s3.vectors_check.run import GroupResult

# Characters that XML 1.0 cannot hold
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_report(results: Sequence[GroupResult], name: str = "vectors") -> bytes:
    """Return a report with a test suite per operation and a test case per case and implementation."""
    root = ElementTree.Element("testsuites", name=name)
    for result in results:
        attributes = {"name": result.operation, "tests": str(len(result.answers)), "failures": str(len(result.faults))}
        suite = ElementTree.SubElement(root, "testsuite", attributes)
        for answer in result.answers:
            attributes = {"classname": f"vectors.{result.operation}", "name": f"{answer.case.id} [{answer.libraries}]"}
            case = ElementTree.SubElement(suite, "testcase", attributes)
            if answer.fault is not None:
                ElementTree.SubElement(case, "failure", message=_NOT_XML.sub("\ufffd", answer.fault))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
