"""What tests of schedhook and of plug-ins for it are made with."""
