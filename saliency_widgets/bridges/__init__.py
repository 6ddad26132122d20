"""Methods of other libraries, as methods of ours."""
