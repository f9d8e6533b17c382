import sys,time
from llmbook.applications import reader,tower
t=time.process_time(); reader.toyworld_reader(int(sys.argv[1])); print("reader",time.process_time()-t,flush=True)
t=time.process_time(); tower.toyworld_tower(int(sys.argv[1])); print("tower",time.process_time()-t,flush=True)
