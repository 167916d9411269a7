rem {{stamp}}
rem {{settings}}
rem What `{{name}} -service install` tells the service control manager.
sc.exe create {{name}} start= auto DisplayName= "{{about}}" binPath= {{cmd_exec}}
sc.exe description {{name}} "{{about}}"
sc.exe failure {{name}} reset= 60 actions= restart/2000/restart/2000/restart/2000
sc.exe failureflag {{name}} 1
