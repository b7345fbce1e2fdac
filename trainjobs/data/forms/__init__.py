"""In which form data is written: each reader makes rows with named columns of the objects of a place. No torch here."""
