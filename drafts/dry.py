import sys,nbformat,time,traceback,torch,pathlib
torch.set_num_threads(1)
sys.path.insert(0,'tools')
n=nbformat.read('notebooks/20_dialogue.ipynb',4)
import matplotlib; matplotlib.use("Agg")
import llmbook.claims as C, llmbook.plots as P
from llmbook.applications import dialogue
from llmbook.transformer import GPT,GPTConfig
mode=sys.argv[1]
real = mode!="fake"
def claim(text,value,**k):
    try: C.claim(text,value,**k)
    except BaseException as e: print("!!",e)
    else: print("ok",text, float(value) if not isinstance(value,str) else value, k)
C_claim=claim
P.show=lambda f: None
g={"__name__":"__main__"}
if not real:
    w=dialogue.Words()
    dialogue.clerk=lambda s: GPT(GPTConfig(len(w),512,16,1,2,positions="rotary",initializer_range=.3),generator=torch.Generator().manual_seed(0)).eval()
skip=set(sys.argv[2].split(",")) if len(sys.argv)>2 else set()
over=dict(a.split("=") for a in sys.argv[3:])
for k,c in enumerate(n.cells):
    if c.cell_type!="code": continue
    t=set(c.metadata.get("tags",[]))
    if t&skip: continue
    src=c.source
    t0=time.process_time()
    try:
        exec(compile(src,f"cell{k}","exec"),g)
    except Exception as e:
        print("CELL",k,src.strip().split("\n")[0]); traceback.print_exc(limit=3)
    g["claim"]=claim if "claim" in g else None
    if "parameters" in t:
        for a,b in over.items(): g[a]=int(b)
    d=time.process_time()-t0
    if d>.5: print(f"--- cell {k} {d:.1f}s {src.strip().splitlines()[0][:50]}",flush=True)
print("total",time.process_time())
