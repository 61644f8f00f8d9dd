"""What a kernel guest finds on its buses.

A device is registers and a state: it has no address, no interrupt number and no global. It is made from what it talks
to (a way to set its interrupt line, the guest's memory, where its output goes) and, if it goes on from a snapshot, from
a state that it once gave. Nothing here knows of KVM or of the machine.
"""
