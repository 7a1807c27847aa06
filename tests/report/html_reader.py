"""A page as a reader of its HTML finds it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Reader(HTMLParser):
    """Collect text, tables and attributes; insist that every element is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.attributes, self.tags, self.texts, self.rows = [], [], [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data.replace("\N{NO-BREAK SPACE}", " "))
            if self.open[-1] in ("td", "th"):
                self.rows[-1][-1] += data

    def text(self) -> str:
        return "\n".join(self.texts)
