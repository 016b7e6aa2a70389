global using Shouldly;
global using Sidecar.Lab;
global using Xunit;
