# ruff: noqa: E501 - sources are shown as they are
"""Sources of hostile packs: small texts, made large by repetition."""

from __future__ import annotations

START = "import torch\nNODE_CLASS_MAPPINGS = {}\n"


def _nest(before: str, middle: str, after: str, times: int) -> str:
    return before * times + middle + after * times


def _blocks(head: str, last: str, times: int, start: int = 0) -> str:
    return (
        "".join(" " * (start + number) + head + "\n" for number in range(times)) + " " * (start + times) + last + "\n"
    )


IS = "torch.cuda.is_available()"

#: Name → source. Together they take hours where the same question is asked again and again.
SOURCES: dict[str, str] = {
    "chained conditions": f"d = {_nest(f'{chr(39)}cuda{chr(39)} if {IS} else ', chr(39) + 'cpu' + chr(39), '', 200)}\n",
    "conditions in bodies": f"d = {_nest('(', 'x', f' if {IS} else 5)', 100)}\n",
    "conditions in parentheses": f"d = {_nest(f'({chr(39)}cuda{chr(39)} if {IS} else (', 'x', '))', 80)}\n",
    "conditions by names": "d = " + " ".join(f"'cuda' if a{number} else" for number in range(200)) + " 'cpu'\n",
    "conditions in tests": "d = " + _nest("'cuda' if (", "a == 'cuda'", ") else 'cpu'", 80) + "\n",
    "a long and": f"if {' and '.join([IS] * 500)}:\n    x.cuda()\n",
    "a long or of devices": f"d = {' or '.join(['device == ' + repr('cuda')] * 500)}\n",
    "a long or of names": "x.to('cuda' if " + " or ".join(f"a{number}" for number in range(500)) + " else y)\n",
    "nested and, or": "d = " + _nest("(a and (b or ", "x.is_cuda", "))", 80) + "\n",
    "a long comparison": "d = 'cuda' == " + " == ".join("a" * 2000) + "\n",
    "a long sum": "d = " + " + ".join(["'cuda'"] * 500) + "\n",
    "many nots": f"d = {'not ' * 150}{IS}\n",
    "parentheses": f"d = {_nest('(', repr('cuda'), ')', 180)}\n",
    "too many parentheses": f"d = {_nest('(', repr('cuda'), ')', 5000)}\n",
    "nested calls": f"d = {_nest('f(', 'x.cuda()', ')', 90)}\n",
    "chained calls": f"d = x{'.cuda()' * 400}\n",
    "more chained calls": f"d = x{'.cuda()' * 20000}\n",
    "chained attributes": ("d = torch.cuda" + ".a" * 300 + "\n") * 100,
    "chained subscripts": f"d = x{'[' + repr('cuda') + ']'}" + "['cuda']" * 400 + "\n",
    "unary operators": f"d = {'-' * 50000}x.cuda()\n",
    "an f-string with many parts": "d = f'" + "cuda:{x}" * 500 + "'\n",
    "many f-strings": "d = [" + ",".join(["f'cuda:{x}'"] * 500) + "]\n",
    "nested f-strings": "d = f\"{f'{x:{y}}'}\" + x.cuda()\n" * 200,
    "nested lambdas": f"d = {'lambda: ' * 90}x.cuda()\n",
    "a comprehension with many loops": f"d = [x.cuda() {' '.join(f'for a{number} in b if {IS}' for number in range(40))}]\n",
    "nested comprehensions": f"d = {_nest('[', 'x.cuda()', ' for a in b]', 80)}\n",
    "many decorators": "@f('cuda')\n" * 800 + "def g(): pass\n",
    "elif without end": f"if {IS}:\n    x.cuda()\n"
    + "".join(f"elif a == {number}:\n    d = 'cuda'\n" for number in range(400)),
    "elif for CUDA": "if a:\n    pass\n" + f"elif {IS}:\n    d = 'cuda'\n" * 200,
    "elif for a device": "if a:\n    pass\n" + "elif device == 'cuda':\n    x.cuda()\n" * 200,
    "more elif than a tree holds": "if a:\n    x.cuda()\n" + "elif b:\n    x.cuda()\n" * 10000,
    "many ifs": f"if {IS}:\n    d = 'cuda'\n" * 300,
    "many ways out": "def f(device):\n" + "    if device != 'cuda':\n        return x.cuda()\n" * 300,
    "blocks in blocks": _blocks(f"if {IS}:", "x.cuda()", 95),
    "more blocks than Python takes": _blocks("if a:", "x.cuda()", 200),
    "loops in loops": _blocks("for a in b:", _blocks("if device == 'cuda':", "x.cuda()", 60, 19).lstrip(), 19),
    "functions in functions": _blocks("def f(d='cuda'):", "x.cuda()", 95),
    "classes in classes": _blocks("class C:", "x = y.cuda()", 95),
    "functions of one name": "def f(device='cuda'):\n    return g(device).cuda()\n" * 300,
    "answers passed on": f"def f(gpu):\n    return x.cuda() if gpu else x\ndef g():\n    on = {IS}\n    return f(on)\n"
    * 100,
    "many answers": "".join(f"def a{n}():\n    return {IS}\nimport m{n}\na{n}()\n" for n in range(400)),
    "an answer used often": f"def f():\n    on = {IS}\n" + "    y = 'cuda' if on else 'cpu'\n" * 300,
    "many answers with names": "def f():\n"
    + "".join(f"    on{n} = {IS}\n    y = x.cuda() if on{n} else 3\n" for n in range(200)),
    "many imports": "".join(f"import torch.cuda as c{n}\n" for n in range(2000)) + "c1.empty_cache()\n",
    "an import of many names": "from torch.cuda import ("
    + ", ".join(f"empty_cache as e{n}" for n in range(2000))
    + ")\ne1()\n",
    "imports that never close": "'''" + "from a import (b\n" * 20000 + "'''\nx.cuda()\n",
    "an import over many lines": "if 0:\n    from a import b" + "\\\n  , b" * 3000 + "\nx.cuda()\n",
    "spaces behind an import": f"x.cuda()\n'''\nfrom a import {' ' * 200000}'''\n",
    "an import of many dots": f"from {'.' * 20000} import {', '.join(f'a{n}' for n in range(2000))}\nx.cuda()\n",
    "a line of a megabyte": f"x = y.cuda(); z = [{'1, ' * 20000}{'(' + repr('y' * 900000) + ')'}]\n",
    "many calls on a line": "; ".join(["x.cuda()"] * 400) + "\n",
    "many calls on a line with accents": "; ".join(["'é'; x.cuda()"] * 400) + "\n",
    "a hundred thousand strings": "x = [\n" + "'cuda',\n" * 100000 + "]\n",
    "many assignments": "device = 'cuda'\n" * 1000,
    "a large table": "D = {" + "".join(f"'k{n}': 'cuda', " for n in range(3000)) + "}\n",
    "a table of devices": "D = {" + "'cuda': 1, " * 3000 + "}\n",
    "a list of devices": f"D = ['cpu', {repr('cuda') + ', '}" + "'cuda', " * 2000 + "]\n",
    "choices": "class N:\n    FUNCTION = 'f'\n    def INPUT_TYPES(cls):\n        ds = ['cuda', 'cpu']\n        return {'required': {"
    + "".join(f"'d{n}': (ds, {{'default': 'cuda'}}), " for n in range(100))
    + "}}\n    def f(self, "
    + ", ".join(f"d{n}" for n in range(100))
    + "):\n        x = 1\n        return x\n",
    "many defaults": "def f(" + ", ".join(f"device{n}='cuda'" for n in range(300)) + "): pass\n",
    "many providers": "p = ['CPUExecutionProvider', " + "'CUDAExecutionProvider', " * 300 + "]\n",
    "properties": "def f():\n" + "    p = torch.cuda.get_device_properties(0)\n    q = p.total_memory\n" * 200,
    "seeds": "def f():\n" + "    torch.cuda.manual_seed_all(1)\n" * 300,
    "many trials": "try:\n    x.cuda()\nexcept Exception:\n    pass\n" * 200,
    "under main": f"if __name__ == '__main__' or {' or '.join([IS] * 500)}:\n    x.cuda()\n",
    "options of a script": f"p.add_argument(choices=[{repr('cuda') + ', '}" + "'cuda', " * 1000 + "])\n",
    "an XPU at the end": "d = [" + "'cuda', " * 1000 + "'xpu']\n",
    "for TorchScript": "".join(f"@torch.jit.script\ndef f{n}(x):\n    return f{n + 1}(x.cuda())\n" for n in range(300)),
    "classes with a cuda()": "".join(f"class C{n}:\n    def cuda(self): pass\n" for n in range(300))
    + "x.cuda()\n" * 300,
    "many contexts": f"with {', '.join(['torch.autocast(' + repr('cuda') + ')'] * 300)}:\n    pass\n",
    "a comment of many signs": f"x.cuda() {'#' * 200000}\n",
    "a line of spaces": f"x.cuda(){' ' * 300000}\n",
    "a word that nearly matches": f"if x.is_cuda:\n    y = '{'cuda_' * 20000}'\n    x.cuda()\n",
    "empty lines": "\n" * 300000 + "x.cuda()\n",
    "a name without end": f"os.environ['CUDA_{'A' * 300000}']\nx.cuda()\n",
    "long names of functions": f"class {'C' * 5000}:\n    def {'f' * 5000}(self):\n" + "        x.cuda()\n" * 200,
    "a number of many digits": f"n = {'9' * 10000}\nx.cuda()\n",
    "a bytes literal of a megabyte": f"b = b'{'x' * 1000000}'\nx.cuda()\n",
    "an escape that is none": "x = '\\d \\c'\ny.cuda()\n",
    "a comparison by is": "if x is 5: y.cuda()\n",
    "assert of a tuple": "assert (x, 'never')\ny.cuda()\n",
    "match": "match x:\n" + "    case {'cuda': y}:\n        x.cuda()\n" * 200,
    "starred everything": "f(" + "*a, " * 400 + "**b, device='cuda')\n",
    "walrus": "while (x := y.cuda()): pass\n" * 100,
    "global and nonlocal": "def f():\n    global device\n    device = 'cuda'\n" * 100,
    "async": "async def f():\n    async with a as b:\n        await x.cuda()\n" * 60,
    "del and augmented": "x += y.cuda()\ndel x\n" * 100,
    "types": "x: 'cuda' = y.cuda()\ndef f(x: 'cuda') -> 'cuda': ...\n" * 60,
    "star imports": "".join(f"from m{n} import *\n" for n in range(2000)) + "x.cuda()\n",
    "our own names": "_patchforge_device = 3\nx.cuda()\n",
    "our own names, imported": "from evil import _patchforge_device\nx.cuda()\n",
    "our own names as functions": "def _patchforge_device(index=None):\n    return 'evil'\n\nx.cuda()\n",
    "our own names with a decorator": "@evil\ndef _patchforge_xpu() -> bool:\n    return True\n\nx.cuda()\n",
    "our own names as classes": "class _patchforge_xpu: pass\nx.cuda()\n",
    "our own names as parameters": "def f(_patchforge_device):\n    return x.cuda()\n",
}

#: Expressions that ran a pack's own code, or Python's inside, when they were proved; ``%s`` is a file that they make.
ESCAPES: dict[str, str] = {
    "getattr": "[getattr(getattr(c, '__init__'), '__globals__')['sys'].modules['os'].system('touch %s') for c in getattr(getattr(getattr((), '__class__'), '__base__'), '__subclasses__')() if getattr(c, '__name__') == '_wrap_close']",
    "getattr in parts": "[getattr(getattr(c, '__in' + 'it__'), '__glo' + 'bals__')['sys'].modules['os'].system('touch %s') for c in getattr(getattr(getattr([], '__cl' + 'ass__'), '__ba' + 'se__'), '__subcl' + 'asses__')() if str(c).find('_wrap_close') > 0]",
    "getattr by map": "list(map(lambda c: getattr(getattr(c, '__init__'), '__globals__')['sys'].modules['os'].system('touch %s'), [c for c in getattr(getattr(getattr('', '__class__'), '__base__'), '__subclasses__')() if '_wrap_close' in repr(c)]))",
    "frames": "[f for f in [(i for i in [1]).gi_frame] if f.f_builtins['open']('%s', 'w')]",
    "frames of callers": "(lambda g: [g.gi_frame.f_back])((i for i in [1])) or open('%s', 'w')",
    "our own values": "x._run.code.source.text.__class__ or x._run.names['__builtins__']['open']('%s', 'w')",
    "our own run": "x._run.evaluate(x._run.code.tree) and '%s'",
    "type with three arguments": "type('T', (str,), {'__str__': lambda s: 1})('%s')",
    "a format that looks inside": "'{0._run.code}'.format(x) + '%s'",
    "a format by map": "'{0[__builtins__]}'.format_map({'0': x}) + '%s'",
    "a name of Python's": "__import__('os').system('touch %s')",
    "builtins": "__builtins__['open']('%s', 'w')",
    "open": "open('%s', 'w').write('x')",
    "eval": "eval(\"__import__('os').system('touch %s')\")",
    "exec": "exec(\"open('%s','w')\")",
    "a helper's insides": "getattr(_patchforge_device, '__globals__')['__builtins__']['__import__']('os').system('touch %s')",
    "a method's owner": "getattr('x'.join, '__self__').__class__ or '%s'",
    "a class through type": "getattr(type(5), 'mro')()[1].__subclasses__() and '%s'",
}

#: Expressions that take time or memory without end when they are evaluated.
BOMBS: dict[str, str] = {
    "a long string": "'x' * 99999999999",
    "a long list": "[0] * 5000000000",
    "a long tuple": "(0, 1) * 5000000000",
    "powers": "((((9**64)**64)**64)**64)**64",
    "powers by names": "pow(9, 10**9) if 0 else (lambda a: (a**a)**(a**a))(9999)",
    "shifts": "1 << 64 << 64 << 64 << (1 << 60)",
    "products": "(lambda a: a*a*a*a*a*a*a*a)((lambda a: a*a*a*a*a*a*a*a)((lambda a: a*a*a*a*a*a*a*a)((lambda a: a*a*a*a*a*a*a*a)(9**64))))",
    "a sum of a range": "sum(range(10**10))",
    "a list of a range": "list(range(10**10))",
    "the largest of a range": "max(range(10**18))",
    "a comprehension": "[0 " + "for a in 'xxxxxxxxxx' " * 9 + "]",
    "a comprehension of values": "[0 " + "for a in b " * 40 + "]",
    "any of many": "any(" + "0 " + "for a in 'xxxxxxxxxx' " * 9 + ")",
    "a growing text": _nest("(lambda v: v + v)(", "y", ")", 40),
    "a growing string": _nest("(lambda v: v + v)(", "'y'", ")", 40),
    "a growing list": _nest("(lambda v: [*v, *v])(", "[1]", ")", 40),
    "a growing f-string": _nest("(lambda v: f'{v}{v}')(", "'y'", ")", 40),
    "shared parts": _nest("(lambda v: [v, v])(", "y", ")", 40),
    "shared parts compared": _nest("(lambda v: [v, v])(", "y", ")", 30)
    + " == "
    + _nest("(lambda v: [v, v])(", "y", ")", 30),
    "shared parts as a text": "str(" + _nest("(lambda v: (v, v))(", "1", ")", 40) + ")",
    "shared parts hashed": "{" + _nest("(lambda v: (v, v))(", "1", ")", 40) + ": 1}",
    "quotes in quotes": _nest("[", '"\'"', "]", 60),
    "a wide number": "'%0999999999d' % 1",
    "a wide number by a star": "'%*d' % (999999999, 1)",
    "a wide format": "f'{1:0999999999}'",
    "a wide format by name": "f'{1:{99999999999}}'",
    "a wide format by method": "'{:>999999999}'.format(1)",
    "a wide text": "'x'.ljust(99999999999)",
    "a growing replacement": "'a'.replace('a', 'aa' * 4000).replace('a', 'aa' * 4000).replace('a', 'aa' * 4000)",
    "a growing join": "('y' * 9000).join(['y' * 9000] * 9000)",
    "a function of itself": "(lambda f: f(f))(lambda f: f(f))",
    "a function of itself, twice": "(lambda f: f(f) or f(f))(lambda f: f(f) and f(f))",
    "many ways": "f(" + ", ".join(f"a{n} or b{n}" for n in range(60)) + ")",
    "many arguments": ", ".join(f"a{n}.b(c)" for n in range(2000)),
    "a long text": f"'{'y' * 500000}'",
    "many digits": "int('9' * 4000) ** 64",
    "many dictionaries": "{**{**{**{**a, **a}, **a}, **a}, **a}",
    "zip of everything": "list(zip(*[range(10000)] * 10000))",
    "sorted by a function": "sorted(range(10000), key=lambda a: [0 for b in range(10000)])",
}
