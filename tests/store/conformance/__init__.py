"""What any store of a routing database has to do, whichever database it is."""
