"""What came of a run: text, JSON, JUnit, annotations, HTML pages, the progress line.

Reads report values and changes nothing. A page is one file, without scripts and without network.
"""
