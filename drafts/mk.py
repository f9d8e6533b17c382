"""17.src.md -> 17.md -> notebook"""
import re,sys,yaml,subprocess
src=open('17.src.md').read()
head='''---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
    jupytext_version: 1.19.6
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

'''
def cell(m):
    opts=m[1].split(); body=m[2].strip('\n').split('\n')
    md={}; tags=[]; 
    cap=alt=name=None; rest=[]
    for l in body:
        if l.startswith('#cap '): cap=l[5:]
        elif l.startswith('#alt '): alt=l[5:]
        elif l.startswith('#name '): name=l[6:]
        else: rest.append(l)
    for o in opts:
        if o=='hide': tags.append('hide-input'); md['jupyter']={'source_hidden':True}
        elif o=='params': tags.append('parameters')
        else: tags.append(o)
    if cap: md['mystnb']={'figure':{'caption':cap,'name':name},'image':{'alt':alt}}
    if tags: md['tags']=tags
    y=('---\n'+yaml.safe_dump(md,allow_unicode=True,sort_keys=False)+'---\n') if md else '\n'
    return '```{code-cell} ipython3\n'+y+'\n'.join(rest).strip('\n')+'\n```'
out=re.sub(r'```py *([^\n]*)\n(.*?)\n```(?=\n)',cell,src,flags=re.S)
open('17.md','w').write(head+out)
subprocess.run(['17/.venv/bin/jupytext','--to','ipynb','17.md','-o','17/notebooks/17_retrieval.ipynb'],check=True)
