import sys,time,json,traceback,os
os.environ["LLMBOOK_CACHE"]="17x/cache"
nbp='17/notebooks/17_retrieval.ipynb'
import matplotlib; matplotlib.use('Agg')
seed=int(sys.argv[1]); stub='stub' in sys.argv; 
from llmbook.applications import reader
import llmbook.claims as C, IPython.display
def show(text,value,**k):
    try: real(text,value,**k)
    except C.ClaimFailed as e: print("FAILED",e)
real=C.claim; C.claim=show
C.display=lambda d,**k: print(d["text/plain"])
import llmbook.plots as P; P.show=lambda f: None
if stub: reader.toyworld_reader=lambda s: reader.new_reader(reader.ReaderRecipe(seed=s)).eval()
import contextlib
g={'__name__':'__main__'}
nb=json.load(open(nbp)); n=0; T=time.process_time()
for c in nb['cells']:
    if c['cell_type']!='code': continue
    n+=1; src=''.join(c['source']); t=time.process_time()
    if c['metadata'].get('tags') and 'nomodel' in sys.argv and {'real-model','reality-check'}&set(c['metadata']['tags']): continue
    try: exec(compile(src,f'cell{n}','exec'),g)
    except Exception: traceback.print_exc(limit=-2,file=sys.stdout); print('IN',src[:80])
    if 'parameters' in c['metadata'].get('tags',[]): g['seed']=seed
    d=time.process_time()-t
    if d>0.7: print(f'   [{n}] {d:.1f}s', src.split(chr(10))[0][:60],flush=True)
print('TOTAL',time.process_time()-T)
