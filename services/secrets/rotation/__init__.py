"""Rotation: secrets that get a new value by themselves, on a schedule, without a moment in which none works.

schedule       when, as cron says it
targets        which servers rotators may reach
values         random values by a policy
rotator        what a rotator is: how a kind of secret gets a new value
registry       the rotators that are installed, by entry point `strongroom.rotators`
rotators/      those that come with Strongroom
policies       which secret rotates how, and what became of it
leases         who works on a secret now
runner         the steps of a rotation
worker         the thread that takes them
servicer       gRPC to those and back
"""
