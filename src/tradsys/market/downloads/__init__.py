"""Downloads and files into the store: resumable, compared with what is stored, each symbol on its own."""
