"""Moving pages: what a strategy calls, and how it is done.

=============  ==================================================================================
module         content
=============  ==================================================================================
move           `Move`: the methods that a strategy calls
options        threads, rates and retries of a move
processes      the record that a move keeps of each process
selection      which memory of the processes to move
census         count each physical page once
runs           where the pages of an area are, part by part
held           targets that are attached when they are asked for
view           where the memory lies, read for all processes together
snapshot       where pages lay before the first move, if old and new nodes overlap
heat           which memory is used most
units          parts of the memory that one call into the backend sweeps
sweeper        sweep units with several threads; retry what may still move
retry          which failures are worth a retry, and how long to wait
throttle       threads, processors and rate
whole_process  move processes as a whole, by migrate_pages(2)
unreachable    pages that move_pages(2) does not find
page_choice    ask a strategy page by page
page_plan      what it answered
backlog        the pages of page plans that have yet to arrive, chunk by chunk
observation    record what moves by other means
profiling      profiles of memory accesses
=============  ==================================================================================
"""
