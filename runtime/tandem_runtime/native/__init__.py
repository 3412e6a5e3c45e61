"""What is compiled: where its sources lie, how a library comes of them, and where it is found."""
