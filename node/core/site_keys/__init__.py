"""The site's de-identification key: that one was retired is on record."""
