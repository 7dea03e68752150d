"""One module for each page: what it shows, as values for its template. No module here draws, escapes or answers a request."""
