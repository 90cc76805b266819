"""Objects in cells: stored, judged, and rebuilt where somebody vouches for them."""
