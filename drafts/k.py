import time,torch
torch.set_num_threads(1)
from llmbook.applications import dialogue
import sys
for s in map(int,sys.argv[1:]):
    t=time.process_time(); dialogue.clerk(s); print(s,time.process_time()-t,flush=True)
