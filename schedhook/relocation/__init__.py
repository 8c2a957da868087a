"""The pipeline of a relocation: from a request to a report.

=========  ====================================================================================
module     step
=========  ====================================================================================
pipeline   `relocate`: all steps in order
prepare    what comes before the move: attach, find the nodes, read, plan
settings   resolve each choice of the request and the configuration once
members    attach to the processes of the request
nodes      make the node map
make_move  make the `Move` that the strategy works with
strategy   call the strategy: its choice of nodes, its check, its errors
plan       make the plan, or the reason to refuse it
policies   find the memory policies that stay behind
carry_out  bind, freeze, move, verify
newcomers  move what appeared during the move
verify     read residency again, and give a reason for all memory that stayed
report     build the report
notes      sentences for people
rebalance  bring several jobs home together: `rebalance`
rotate     carry out a rotation, chunk by chunk
context    what the steps share
=========  ====================================================================================
"""
