"""What turns an update into bytes and back. Look names up in `parslfl.codecs.names`."""
