"""Downloads and files into the store: resumable, compared with stored bars, symbol by symbol."""
