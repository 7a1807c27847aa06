"""The filters of the first layer: their pictures, tables, page and files."""
