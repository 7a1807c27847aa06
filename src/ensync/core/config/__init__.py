"""A job: every setting declared once, read, overridden, refused, written back."""
