final: prev: { intel-dpcpp = prev.lib.makeScope final.newScope (import ./intel-dpcpp final); }
