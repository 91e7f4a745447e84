"""When a vendor's stamps were: times in every form, and the zones that they are in."""
