final: prev: { intel-python = final.python3.override { packageOverrides = import ./intel-python; }; }
