rem {{stamp}}
rem {{settings}}
rem What `{{name}} -service install` tells the service control manager.
sc.exe create {{name}} start= delayed-auto obj= "NT SERVICE\{{name}}" DisplayName= "{{about}}" binPath= {{cmd_exec}}
sc.exe description {{name}} "{{about}}"
sc.exe failure {{name}} reset= 3600 actions= restart/2000/restart/10000/restart/60000
sc.exe failureflag {{name}} 1
