"""What older versions wrote, brought to the present formats by `lvm migrate`."""
