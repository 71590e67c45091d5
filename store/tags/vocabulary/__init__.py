"""Names of genres: their spellings, and other names of the same genre."""
