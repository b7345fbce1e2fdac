"""Workers of Ray Train. The only room that imports ray."""
