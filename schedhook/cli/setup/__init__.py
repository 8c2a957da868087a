"""What `schedhook setup` places on a host: the files of contrib/, which the package has."""
