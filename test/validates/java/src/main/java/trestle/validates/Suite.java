package trestle.validates;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.jar.JarFile;
import java.util.stream.Collectors;
import org.junit.Test;
import org.junit.experimental.categories.Category;
import org.junit.experimental.runners.Enclosed;
import org.junit.internal.builders.AllDefaultPossibilitiesBuilder;
import org.junit.runner.Description;
import org.junit.runner.RunWith;
import org.junit.runner.Runner;

/** The tests of a category in the SDK's tests jar. Nothing else names them: Beam's build finds them by their annotation. */
final class Suite {
  private static final String CATEGORY = "org.apache.beam.sdk.testing.ValidatesRunner";
  private static final String JAR = "beam-sdks-java-core-.*-tests\\.jar";

  private Suite() {}

  /** A test method of a class. */
  static final class Case {
    final Class<?> owner;
    final Description description;
    /** The categories of the method and its class, and what those extend. */
    final Set<String> categories = new TreeSet<>();

    Case(Class<?> owner, Description description) {
      this.owner = owner;
      this.description = description;
      for (Category category :
          new Category[] {
            description.getAnnotation(Category.class), owner.getAnnotation(Category.class)
          }) {
        if (category != null) {
          for (Class<?> c : category.value()) addCategories(c);
        }
      }
    }

    private void addCategories(Class<?> c) {
      if (c == null || c == Object.class || !categories.add(c.getName())) return;
      for (Class<?> parent : c.getInterfaces()) addCategories(parent);
      addCategories(c.getSuperclass());
    }

    String name() {
      return owner.getName() + "." + description.getMethodName();
    }
  }

  /** All tests of the category, by the order of classes in the jar. */
  static List<Case> find() throws IOException {
    List<Case> cases = new ArrayList<>();
    for (String element : System.getProperty("java.class.path").split(File.pathSeparator)) {
      if (!new File(element).getName().matches(JAR)) continue;
      for (String name : classes(element)) cases.addAll(ofClass(name));
    }
    return cases;
  }

  private static List<String> classes(String jar) throws IOException {
    try (JarFile file = new JarFile(jar)) {
      return file.stream()
          .map(entry -> entry.getName())
          .filter(name -> name.endsWith(".class") && name.contains("Test"))
          .map(name -> name.substring(0, name.length() - ".class".length()).replace('/', '.'))
          .sorted()
          .collect(Collectors.toList());
    }
  }

  /** The tests of one class; none of a class that does not load, since parts of the jar need other artifacts. */
  static List<Case> ofClass(String name) {
    List<Case> cases = new ArrayList<>();
    try {
      Class<?> owner = Class.forName(name, false, Suite.class.getClassLoader());
      if (!holdsTests(owner)) return cases;
      Runner runner = new AllDefaultPossibilitiesBuilder(true).safeRunnerForClass(owner);
      if (runner == null) return cases;
      for (Description leaf : leaves(runner.getDescription())) {
        if (leaf.getMethodName() == null) continue;
        Case found = new Case(owner, leaf);
        if (found.categories.contains(CATEGORY)) cases.add(found);
      }
    } catch (LinkageError | ReflectiveOperationException e) {
      System.err.println("left out class " + name + ": " + e);
    }
    return cases;
  }

  private static boolean holdsTests(Class<?> c) {
    if (Modifier.isAbstract(c.getModifiers()) || !Modifier.isPublic(c.getModifiers())) return false;
    RunWith with = c.getAnnotation(RunWith.class);
    if (with != null) return with.value() != Enclosed.class; // which holds classes, and those are found by themselves
    for (Method method : c.getMethods()) {
      if (method.isAnnotationPresent(Test.class)) return true;
    }
    return false;
  }

  private static Set<Description> leaves(Description description) {
    Set<Description> found = new LinkedHashSet<>();
    if (description.isTest()) {
      found.add(description);
    } else {
      for (Description child : description.getChildren()) found.addAll(leaves(child));
    }
    return found;
  }
}
